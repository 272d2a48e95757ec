"""Artifacts side by side: a child process each (`worker`), asked in turn (`race`)."""

"""Where photos come from.

`photos` decodes one, `places` opens all that a user names: files, folders, globs, lists, videos,
cameras and streams, as one `items.Source`.
"""

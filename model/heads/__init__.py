"""Region proposal, box and mask heads, one file each."""

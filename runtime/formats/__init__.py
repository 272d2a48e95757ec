"""Results as files: `coco` (COCO results JSON), `jsonl` (one line per image)."""

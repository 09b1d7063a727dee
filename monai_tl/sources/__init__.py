"""Pretrained sources: what they expect (card), and how their weights come across (audited)."""

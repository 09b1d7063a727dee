"""``python -m monai_tl``: the same as the ``monai-tl`` command."""

from monai_tl.cli import main

if __name__ == "__main__":
    main()

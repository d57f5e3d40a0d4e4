"""`python -m eztorch_sce`: the command `eztorch-sce`."""

from eztorch_sce.cli import main

if __name__ == "__main__":
    main()

"""`python -m thalweg` is the command `thalweg`, as `torchrun -m thalweg` needs it."""

from thalweg.cli import main

if __name__ == "__main__":
    main()

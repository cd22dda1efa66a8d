"""All of deep learning in one readable, fast PyTorch library.

stream -> batches, task -> losses, training -> steps. A model is a plain module, a recipe a plain function,
the catalogue a plain table. `thalweg list` names every system, `thalweg show NAME` leads to its file.
"""

__version__ = "0.1.0"

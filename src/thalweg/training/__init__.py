"""What is learned (Task), how (Experiment), and the one loop that does it (Training)."""

from thalweg.training.experiment import Experiment
from thalweg.training.loop import Step, Training, evaluate
from thalweg.training.task import Task

__all__ = ["Experiment", "Step", "Task", "Training", "evaluate"]

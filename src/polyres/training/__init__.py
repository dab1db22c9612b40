"""From a recipe to trained weights: run folder, optimiser and schedule, tasks, solver."""

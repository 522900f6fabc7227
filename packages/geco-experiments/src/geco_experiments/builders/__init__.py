"""From a configuration to the model, the objective and the frozen classifier that it names."""

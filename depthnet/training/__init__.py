"""From a config to a trained network: module, losses, optimizers, callbacks, loggers, sweeps."""

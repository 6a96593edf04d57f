"""The small real model that the demo and the tests serve."""

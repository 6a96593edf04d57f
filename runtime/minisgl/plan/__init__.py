"""What a model is and what it takes, from its config.json and the launch arguments: pure, without torch or a device.

Three read it: the engine at start, `python -m minisgl plan`, and the operator before it makes a pod.
"""

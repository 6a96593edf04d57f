"""The pieces models are made of, sharded over ranks where that matters."""

"""What a model's text means: reasoning, content and tool calls. Text in, events out; no HTTP, no JSON answers."""

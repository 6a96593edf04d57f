"""Text to ids and ids to text, in processes of their own: a long prompt or a bad template disturbs nobody's stream."""

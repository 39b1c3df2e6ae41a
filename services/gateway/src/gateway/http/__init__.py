"""The HTTP side of the gateway: OpenAI's shapes in and out."""

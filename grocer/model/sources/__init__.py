"""Where base models come from: directories, model hubs, object storage, wheels and GGUF files."""

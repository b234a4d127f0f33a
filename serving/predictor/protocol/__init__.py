"""The HTTP and gRPC protocols: pydantic models, parsing, rendering and the OpenAPI document."""

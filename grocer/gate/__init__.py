"""The accuracy gate: rules that an adapter must pass before it is deployed."""

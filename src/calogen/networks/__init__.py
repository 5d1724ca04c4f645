"""Plain modules: tensors in, tensors out; they know no physics and no method."""

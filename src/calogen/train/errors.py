"""The error of a fit that cannot go on."""


class TrainingError(RuntimeError):
    """A fit cannot go on, for instance because its loss is no longer a number; the message is one line."""

"""What stops a load before it begins."""


class BadFile(Exception):
    """A file or an option that cannot be used; the message names it and says what to do."""


class BadCell(Exception):
    """A value of one row that cannot be used: the field, and why."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message

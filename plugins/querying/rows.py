"""What is wrong with the rows that a query gives."""


class BadRows(ValueError):
    """What a query gives can't be used; the text says what it is and what would be right."""

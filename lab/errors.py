"""The lab's one error."""


class LabError(Exception):
    """Something the lab cannot do or mend; the message is for the person at the terminal."""

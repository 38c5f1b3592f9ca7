"""All messages of responses to engines and to programs of operators, in English and Chinese."""

from flowhooks.messages.lookup import LANGUAGES, MESSAGES, text

__all__ = ["LANGUAGES", "MESSAGES", "text"]

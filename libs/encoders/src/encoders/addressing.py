"""Sentences in data that speak to the machine which reads them: no document for people needs one."""

import re

_WHO = r"(?:AI|LLMs?|language models?|chatbots?|(?:AI |virtual |helpful )?assistants?|AI (?:systems?|agents?|models?|tools?))"
_DO = (
    r"(?:do not|don't|never|always|please|disregard|ignore|forget|call|use|invoke|send|forward|e-?mail|tell|say|recommend|reply|respond"
    r"|answer|write|output|print|execute|run|stop|instead|append|include|insert|add|delete|transfer|visit|open|click"
    r"|you (?:must|should|have to|are))"
)
_ADDRESSED = re.compile(
    rf"(?:^|[<>!\-*#(\"'\[{{.;:]\s*|note (?:to|for) (?:the )?|attention,? |dear |hey |hello )(?:the )?{_WHO}\s*[:,!\u2014-]+\s*{_DO}\b",
    re.IGNORECASE,
)
_READS = re.compile(
    r"\b(?:when|if|whenever|once|any)\s+(?:an?\s+|the\s+)?(?:AI|LLM|language model|chatbot|AI assistant)[^.]{0,40}"
    r"\b(?:reads?|sees?|process(?:es)?|summari[sz]es?|parses?|visits?)\b",
    re.IGNORECASE,
)
_MUST = re.compile(
    r"\b(?:AI(?: (?:systems?|models?|assistants?|agents?))?|LLMs?|language models?|chatbots?)\b[^.]{0,30}"
    r"\b(?:must|should|shall|has to|have to|need to)\b[^.]{0,20}"
    r"\b(?:answer|say|reply|respond|tell|recommend|output|write|ignore|disregard|forward|send|print)",
    re.IGNORECASE,
)


def speaks_to_a_machine(sentence: str) -> bool:
    """Return whether a sentence of a document or tool result gives an order to an assistant or model."""
    return any(pattern.search(sentence) for pattern in (_ADDRESSED, _READS, _MUST))

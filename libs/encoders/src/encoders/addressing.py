"""Sentences in data that speak to the machine which reads them: no document for people needs one."""

import re

from encoders.addressing_abroad import speaks_to_a_machine_abroad

_WHO = (
    r"(?:AI|LLMs?|language (?:models?|assistants?)|chatbots?|(?:AI |virtual |helpful )?assistants?|AI (?:systems?|agents?|models?|tools?))"
)
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
    r"\b(?:AI(?: (?:systems?|models?|assistants?|agents?))?|LLMs?|language (?:models?|assistants?)|chatbots?)\b[^.]{0,30}"
    r"\b(?:must|should|shall|has to|have to|need to)\b[^.]{0,20}"
    r"\b(?:answer|say|reply|respond|tell|recommend|output|write|ignore|disregard|forward|send|print)",
    re.IGNORECASE,
)
_FOR = re.compile(
    r"\b(?:important|urgent|attention|notice|message|note|instructions?|warning|reminder)\s*+[:,-]?\s*+(?:for|to)\s+"
    r"(?:the |this |all |any |every )?"
    r"(?:AI(?: (?:systems?|agents?|models?|assistants?|tools?))?|LLMs?|language (?:models?|assistants?)"
    r"|chatbots?|(?:AI |virtual )assistants?)\b",
    re.IGNORECASE,
)
# Only who reads instructions as well as data has earlier ones to ignore.
_OVERRIDES = re.compile(
    r"(?<!not )(?<!n't )(?<!never )\b(?:ignore|disregard|forget|override|bypass)\s+(?:(?:all|any|every|of|the|your|my|these|those)\s+){0,4}"
    r"(?:(?:previous|prior|earlier|above|preceding|original|system|initial)\s+(?:instructions?|prompts?|guidelines|directions|directives)"
    r"|(?<=your )(?:programming|guidelines|(?:system )?prompt)|instructions above)\b",
    re.IGNORECASE,
)
_GOAL = re.compile(
    r"\b(?:new|updated|real|actual|true)\s+(?:goals?|tasks?|instructions?|objectives?|orders)\s+(?:for|to)\s+"
    r"(?:the\s+|this\s+|all\s+|any\s+)?(?:AI|agents?|assistants?|models?|LLMs?|chatbots?)\b"
    r"|(?:^|[.!:]\s+)your (?:task|goal|objective|instructions) (?:has|have) (?:been )?changed\b"
    rf"|\binstead of answering,?\s+{_DO}\b",
    re.IGNORECASE,
)
# What is made of a text, and the programs that make it: a document for people speaks of neither in the imperative.
_OUTPUT = r"(?:answers?|repl(?:y|ies)|responses?|summar(?:y|ies)|digests?|recaps?|briefings?)"
_THIS = (
    r"\b(?:this|these|the (?:present|above))\s+(?:\w+\s+)?"
    r"(?:pages?|notes?|sheets?|texts?|documents?|articles?|messages?|(?:e-?)?mails?|threads?|files?|reports?|guidelines?|leaflets?|manuals?"
    r"|records?|results?|tickets?|entr(?:y|ies)|circulars?|listings?|reviews?|notices?)\b"
)
_OBLIGED = (
    r"\b(?:should|must|shall|may|ought to|needs? (?:not|to)|ha(?:s|ve) to|(?:is|are) (?:kindly )?(?:asked|requested|expected|invited|meant"
    r"|welcome|free|required)|kindly|please)\b"
)
_TELLS = (
    r"\b(?:say|state|tell|mention|leave|omit|skip|advi[sc]e|recommend|suggest|carry|include|open|begin|end|put|name|point|give|claim|assure|add"
    r"|show|ask|praise|insert|append|present|describe|send|forward|copy)\b"
)
_PROGRAM = (
    r"(?:(?:digital|virtual|automat(?:ed|ic)|AI|LLM|software|smart|e?-?mail|shopping|payment|coding|booking|reading) "
    r"(?:assistants?|helpers?|agents?|readers?|secretar(?:y|ies)|bots?|tools?|programs?)|chatbots?|language models?)"
)
_HANDLES = r"(?:(?:that|which|who) )?(?:read|handl|process|summari[sz]|see|find|answer|us|quot|cit|work|deal|prepar)(?:e?s|ing)?"
_MADE = (
    re.compile(
        rf"\b{_OUTPUT}\b[^.:;]{{0,20}}\b(?:drawn|taken|made|prepared|written|built|derived|based|of|cit(?:e|es|ing)|quot(?:e|es|ing)|rest(?:s|ing)?"
        rf"|rel(?:y|ies|ying))\b[^.:;]{{0,20}}{_THIS}[^.:;]{{0,25}}{_OBLIGED}[^.:;]{{0,25}}{_TELLS}",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:whoever|anyone who|any(?:one)? (?:program|tool|helper|system)?\s?that|those who)\b[^.:;]{{0,50}}"
        rf"\b(?:{_OUTPUT}|summari[sz]es?|is asked)\b[^.:;]{{0,50}}{_THIS}[^.:;]{{0,25}}{_OBLIGED}[^.:;]{{0,25}}{_TELLS}",
        re.IGNORECASE,
    ),
    re.compile(rf"\b{_PROGRAM} {_HANDLES}\b[^.:;]{{0,30}}\b(?:this|these)\b[^.:;]{{0,60}}{_OBLIGED}", re.IGNORECASE),
    re.compile(
        rf"\b(?:note|message|hint|reminder|request) (?:for|to) (?:whoever|anyone who|those who) (?:prepares?|writes?|drafts?|makes?|gives?)"
        rf" (?:an?|the) {_OUTPUT}\b",
        re.IGNORECASE,
    ),
    re.compile(rf"\b(?:ask|invite|request|beg)s? (?:the|any|every|all|your) {_PROGRAM} to\b", re.IGNORECASE),
)
# Marks with which chat formats begin and end turns.
_TURN = re.compile(
    r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id)\|>|\[/?INST\]|<</?SYS>>"
    r"|^[ \t]*#{2,3}\s{0,8}(?:system|assistant)\s{0,8}:|</?(?:system|assistant)(?:[_ -](?:prompt|message|instructions?))?>",
    re.IGNORECASE | re.MULTILINE,
)


def speaks_to_a_machine(sentence: str) -> bool:
    """Return whether a sentence of a document or tool result gives an order to an assistant or model."""
    own = (_ADDRESSED, _READS, _MUST, _FOR, _OVERRIDES, _GOAL, _TURN, *_MADE)
    return any(pattern.search(sentence) for pattern in own) or speaks_to_a_machine_abroad(sentence)


def forges_a_turn(text: str) -> bool:
    """Return whether a text holds marks that begin or end turns in the chat formats of models."""
    return _TURN.search(text) is not None

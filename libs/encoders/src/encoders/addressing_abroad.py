"""Sentences in German, French and Spanish data that speak to the machine which reads them."""
# ruff: noqa: RUF001 - people type curly quotes, and so must the patterns

import re

# Ki-67 is a marker of tumours, IA a stage.
_WHO = (
    r"(?:(?-i:KI)(?!-?\d)(?:-(?:Assistent(?:in|en)?|Systeme?n?|Modelle?n?|Agent(?:en)?))?|Sprachmodelle?n?|Chatbots?"
    r"|(?:(?:assistants?|agents?|modèles?|systèmes?|asistentes?|agentes?|modelos?|sistemas?)\s(?:(?:d['’]|de\s))?)?(?-i:IA)"
    r"|modèles?\sde\slangage|modelos?\sde\slenguaje)"
)
_DO = (
    r"(?:(?:ignorier|antwort|schreib|empfehl|leit)e[nt]?|sage?|send(?:e|et)|vergiss|vergesst|empfiehl|ignore[zs]?|réponde?[zs]|dis|dites|oublie[zs]?"
    r"|recommande[zs]?|envoie[zs]?|écri(?:s|vez)|ignora|responde|di|diga|olvid[ae]|recomiend[ae]|envía|escrib[ae])"
)
_NEGATED = r"(?<!nicht )(?<!nie )(?<!ne )(?<!no )(?<!nunca )"
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        (
            rf"\b(?:hinweise?|anweisung(?:en)?|nachricht|achtung|wichtig|notiz|note|instructions?|consignes?|message|attention|avis|important|nota|aviso"
            rf"|instrucci(?:ón|ones)|mensaje|atención|importante)\s*+:?\s*+\b(?:an|für|à|au|aux|pour|al|para|a(?=\s(?:la|las|los|tod[ao]s)\b))\s+"
            rf"(?:(?:die|das|den|alle|jede|la|les?|el|los|une?|una|tou(?:te)?s\sles|tod[ao]s\sl[ao]s)\s+|l['’]\s?)?{_WHO}\b"
        ),
        rf"(?:^|[<>!\-*#(\"'\[{{.;:]\s*)(?:{_WHO}|assistente?n?|asistente)\s*[:,!]\s*{_DO}\b",
        rf"\b(?:wenn|falls|sobald)\s+(?:du|eine?)\s+(?:eine?\s+)?{_WHO}\b[^.]{{0,40}}\b(?:bist|liest|verarbeitet|zusammenfasst|sieht)\b",
        rf"\b(?:si|quand|lorsque|cuando)\s+(?:tu\s+es|vous\s+êtes|eres|une?|una)\s+(?:une?\s+|una\s+)?{_WHO}\b[^.]{{0,60}}\b(?:{_DO}|do(?:it|is|ivent)|deben?s?)\b",
        (
            rf"{_NEGATED}\b(?:ignorier\w*|vergiss|vergesst|missachte\w*)\s+(?:(?:sie|alle|all|die|den|der)\s+){{0,3}}"
            r"(?:(?:bisherig|vorherig|vorig|vorangegangen|obig|früher|ursprünglich)\w*|deine\w?)\s+(?:anweisung|instruktion|vorgabe|befehl|prompt|system)\w*"
        ),
        (
            rf"{_NEGATED}\b(?:ignore[zs]?|oublie[zs]?)\s+(?:(?:toutes|tous|les|ces)\s+){{0,3}}"
            r"(?:(?:instructions?|consignes?|directives?)\s+(?:précédent|antérieur|initial|ci-dessus)\w*|(?:tes|vos)\s+(?:instructions|consignes|directives))"
        ),
        (
            rf"{_NEGATED}\b(?:ignor[ae]|olvid[ae])\s+(?:(?:tod[ao]s|las|los|estas)\s+){{0,3}}"
            r"(?:(?:instrucciones|indicaciones|órdenes|directrices)\s+(?:anterior|previ|inicial)\w*|(?:tus|sus)\s+(?:instrucciones|indicaciones|directrices))"
        ),
    )
)


def speaks_to_a_machine_abroad(sentence: str) -> bool:
    """Return whether a German, French or Spanish sentence of a document or tool result gives an order to an assistant or model."""
    return any(pattern.search(sentence) for pattern in _PATTERNS)

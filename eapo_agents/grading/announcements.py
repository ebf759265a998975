"""How models announce an answer, in English and in other languages."""

from __future__ import annotations

import re

_NOUNS = {
    "German": "antwort l\u00f6sung",
    "French": "r\u00e9ponse",
    "Spanish": "respuesta opci\u00f3n letra",
    "Italian": "risposta opzione lettera",
    "Portuguese": "resposta op\u00e7\u00e3o alternativa",
    "Indonesian": "jawaban jawabannya",
    "Turkish": "cevap yan\u0131t",
    "Polish": "odpowied\u017a odpowiedz odpowiedzi\u0105",
    "Dutch": "antwoord",
    "Swedish, Danish, Norwegian": "svar svaret",
    "Finnish": "vastaus",
    "Czech": "odpov\u011b\u010f",
    "Romanian": "r\u0103spuns r\u0103spunsul",
    "Hungarian": "v\u00e1lasz",
    "Vietnamese": "\u0111\u00e1p_\u00e1n c\u00e2u_tr\u1ea3_l\u1eddi k\u1ebft_qu\u1ea3",
    "Greek": "\u03b1\u03c0\u03ac\u03bd\u03c4\u03b7\u03c3\u03b7",
    "Russian": "\u043e\u0442\u0432\u0435\u0442 \u0432\u0430\u0440\u0438\u0430\u043d\u0442",
    "Ukrainian": "\u0432\u0456\u0434\u043f\u043e\u0432\u0456\u0434\u044c",
}
"""Words for "answer" and "option"; `_` is a space."""
_IS = (
    "ist lautet w\u00e4re est es \u00e8 \u00e9 adalah l\u00e0 to jest is \u00e4r er on je este "
    "\u03b5\u03af\u03bd\u03b1\u03b9"
)
_NO = "no non n\u00e3o nicht pas nie niet inte ikke \u043d\u0435"
_NOUN = "|".join(n.replace("_", r"\s+") for words in _NOUNS.values() for n in words.split())
_LETTER = r"\(?(?-i:[A-J])\b"
ANNOUNCED = re.compile(
    rf"""(?:answer|\bans)\W{{0,4}}\s*[:=\uff1a]                       # Answer: / **Answer**:
      | \b(?:final|my|correct|best)\s+(?:choice|option)\W{{0,4}}\s*[:\uff1a]
      | \banswer's\b
      | ^[\#*_ \t]*(?:final\s+)?answer[*_ \t]*$                # a heading
      | (?:answer|result|solution|choice|option)\s+
        (?:is|was|equals|(?:would|should|must|has\s+to)\s+be)\b,?
        (?:\s+(?:therefore|thus|hence|then|simply|just|indeed|clearly|exactly|equal\s+to)\b,?)?
        \s*:?
      | \#\#\#\#                                               # GSM8K's own mark
      | \b(?:{_NOUN}) (?:\s+(?!(?:{"|".join(_NO.split())})\b)[^\W\d]+){{0,2}}? \s*
        (?: [:\uff1a\u2013\u2014] | \s-\s | \b(?:{"|".join(_IS.split())})\b\s*:? | (?=\s{_LETTER}) )
        (?:\s*(?:la|el|le|die|o|a)\b(?=\s+[^\W\d]*\s*{_LETTER}))?
      | \brichtig\s+(?:ist|w\u00e4re)\b | \bcorrecta\s+es\s+la\b
      | (?:\u7b54\u3048|\u6b63\u89e3)\s*\u306f?\s*[:\uff1a]?           # Japanese
      | \u9078\u629e\u80a2 | \u89e3\u7b54\s*[:\uff1a]
      | ^\s*\u7b54\s*[:\uff1a]
      | \u7b54\u6848\s*[\u662f\u4e3a\u70ba]?\s*[:\uff1a]?              # Chinese
      | \u6b63\u786e(?:\u7b54\u6848|\u9009\u9879)?\u7684?\u662f
      | (?:\u6545|\u5e94|\u6240\u4ee5|\u56e0\u6b64)?\u9009\u62e9?\s*[:\uff1a]?
      | \uc815?\ub2f5\s*[\uc740\uc774]?\s*[:\uff1a]?                # Korean
      | \u0627\u0644(?:\u0625\u062c\u0627\u0628\u0629|\u062c\u0648\u0627\u0628)
        (?:\s+\u0627\u0644\w+)?(?:\s+\u0647[\u0648\u064a])?\s*[:\uff1a]?
      | \u05d4\u05ea\u05e9\u05d5\u05d1\u05d4\s+\u05d4\u05d9\u05d0    # Arabic, Hebrew, Hindi
      | \u0909\u0924\u094d\u0924\u0930\s*[:\uff1a]? | \u0935\u093f\u0915\u0932\u094d\u092a
      | \u0e04\u0e33\u0e15\u0e2d\u0e1a\s*(?:\u0e04\u0e37\u0e2d)?\s*[:\uff1a]?   # Thai
    """,
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)

"""All recorded answers."""

from __future__ import annotations

from tests.answers_clouds import BEDROCK, GEMINI, HTTP
from tests.answers_models import ANTHROPIC, AZURE, OPENAI

ANSWERS = [*OPENAI, *AZURE, *ANTHROPIC, *GEMINI, *BEDROCK, *HTTP]

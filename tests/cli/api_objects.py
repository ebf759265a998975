"""Chat models of a user's own, as a recipe names them: `api_objects:asking`."""

from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult


class Asking(BaseChatModel):
    """Asks expert `a` once, thinks aloud, and repeats its reply."""

    temperature: float = 0.2
    max_tokens: int = 9
    tools: tuple = ()

    @property
    def _llm_type(self):
        return "asking"

    def bind_tools(self, tools, **more):
        return self.model_copy(update={"tools": tools})

    def _generate(self, messages, stop=None, run_manager=None, **more):
        replies = [m.text for m in messages if isinstance(m, ToolMessage)]
        usage = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
        if self.tools and not replies:
            call = {"name": "a", "args": {"query": messages[-1].text}, "id": "1"}
            message = AIMessage("", tool_calls=[call], usage_metadata=usage)
        else:
            # content in parts, with a thought
            parts = [
                {"type": "thinking", "thinking": f"T={self.temperature} L={self.max_tokens}"},
                {"type": "text", "text": f"Answer: {''.join(replies) or 19}"},
            ]
            message = AIMessage(parts, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])


class Failing(Asking):
    status_code: int = 0

    def _generate(self, messages, stop=None, run_manager=None, **more):
        error = ConnectionError("down") if not self.status_code else RuntimeError("no")
        error.status_code = self.status_code or None
        raise error


asking = Asking()
failing = Failing()
busy = Failing(status_code=503)
wrong_key = Failing(status_code=401)
without_tools = GenericFakeChatModel(messages=iter(["Answer: 19"] * 9))
number = 7


def made():
    return Asking()


def not_made():
    raise KeyError("SOME_KEY")

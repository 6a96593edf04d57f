"""What chat templates tell: formats of calls and of reasoning. The templates here are models' in miniature."""

import pytest

from minisgl.messages import Tokenize
from minisgl.process import Dialect
from minisgl.tokenizer.dialect import dialect_of
from minisgl.tokenizer.template import ChatTemplate

QWEN = """\
{%- if tools %}{% for tool in tools %}{{ tool | tojson }}
{% endfor %}Return calls within <tool_call></tool_call> tags.{% endif %}
{%- for message in messages %}
{%- if message.content %}{{ message.content }}{% endif %}
{%- for call in message.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}
{%- endfor %}"""
QWEN3 = QWEN + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
LLAMA = """\
{%- if tools is not none %}<|start_header_id|>system{{ tools }} Respond as {"name": f, "parameters": {…}}{% endif %}
{%- for message in messages %}
{%- if 'tool_calls' in message %}{% if message.tool_calls | length != 1 %}{{ raise_exception("one call") }}{% endif %}
{"name": "{{ message.tool_calls[0].function.name }}", "parameters": {% for key, value in
message.tool_calls[0].function.arguments.items() %}{{ key }}={{ value }}{% endfor %}}
{%- else %}{{ message.content }}{% endif %}{% endfor %}"""
DEEPSEEK = """\
{%- for message in messages %}
{%- if message['role'] == 'assistant' and message['content'] is none %}
{%- for tool in message['tool_calls'] %}{{ '```json\n' + tool['function']['arguments'] + '\n```' }}{% endfor %}
{%- elif message['content'] is not none %}
{%- set text = message['content'] %}{% if '</think>' in text %}{% set text = text.split('</think>')[-1] %}{% endif %}
{{- text }}{% endif %}
{%- endfor %}{{ '<\uff5cAssistant\uff5c><think>\n' }}"""


@pytest.mark.parametrize(
    ("template", "dialect"),
    [
        (None, Dialect()),
        ("{{ messages[0].content }}", Dialect()),
        (QWEN, Dialect("hermes", None)),
        (QWEN3, Dialect("hermes", "qwen3")),
        (QWEN.replace("arguments", "<function=").replace("name", "<parameter="), Dialect()),
        (LLAMA, Dialect("llama3", None)),
        ("{{ tools }}<|python_tag|>", Dialect("llama3", None)),
        ("{{ tools }}[func_name1(params_name1=params_value1)]<|start_header_id|>", Dialect("pythonic", None)),
        (DEEPSEEK, Dialect(None, "deepseek-r1")),
    ],
)
def test_a_template_tells_how_its_model_answers(template: str | None, dialect: Dialect) -> None:
    assert dialect_of(template) == dialect


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"city": "Zürich"}'}}
CALLED = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (QWEN, '?<tool_call>\n{"name": "f", "arguments": {"city": "Zürich"}}\n</tool_call>'),
        (LLAMA, '?{"name": "f", "parameters": city=Zürich}'),
        (DEEPSEEK, '?```json\n{"city": "Zürich"}\n```<\uff5cAssistant\uff5c><think>\n'),
        (
            "{% for m in messages if m.tool_calls %}{{ m.tool_calls[0].function.arguments }}{% endfor %}",
            '{"city": "Zürich"}',
        ),
    ],
)
def test_arguments_are_what_the_template_can_write(source: str, text: str) -> None:
    assert ChatTemplate(source, {}).render(CALLED, {}) == text


def test_a_request_is_not_changed_by_rendering() -> None:
    request = Tokenize(1, messages=CALLED)
    ChatTemplate(QWEN, {}).render(request.messages or [], {})
    assert CALL["function"] == {"name": "f", "arguments": '{"city": "Zürich"}'}

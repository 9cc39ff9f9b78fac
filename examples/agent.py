"""A model that calls functions of yours: the tool loop, by the openai client.

Run it beside ``ridgeline up``, in a shell that evaluated ``ridgeline env``. It deploys a small
model from the zoo and deletes it at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from openai import OpenAI
from rich.console import Console

from ridgeline import ZooModel

QUESTIONS = ("What is the weather in Oslo?", "What is 12 times 34?")
MOST_TURNS = 3
WEATHER = {"Lisbon": "sun, 24 degrees", "Oslo": "snow, -3 degrees", "Cairo": "haze, 35 degrees"}
console = Console(highlight=False, markup=False, soft_wrap=True)


def weather(city: str) -> str:
    return WEATHER[city]


def multiply(a: int, b: int) -> str:
    return str(a * b)


FUNCTIONS: dict[str, Callable[..., str]] = {"weather": weather, "multiply": multiply}


def tool(name: str, description: str, properties: dict[str, object]) -> dict[str, Any]:
    """A function as the API declares it. The schema is kept exactly: no city that is not in the
    list, and no argument too many."""
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    function = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


TOOLS: Any = [
    tool("weather", "The weather in a city today.", {"city": {"enum": list(WEATHER)}}),
    tool("multiply", "Multiply two numbers.", {"a": {"type": "integer"}, "b": {"type": "integer"}}),
]


def main() -> None:
    client = OpenAI()
    predictor = ZooModel("smollm2-135m-instruct").deploy()
    try:
        for question in QUESTIONS:
            console.print(f"\n{question}")
            console.print(f"  = {ask(client, predictor.endpoint_name, question)}")
    finally:
        predictor.delete_endpoint()


def ask(client: OpenAI, model: str, question: str) -> str:
    """Let the model call functions until it answers in words.

    A model of 135M parameters seldom thinks of calling anything, so the first turn demands a call
    (``required``): a grammar then holds it to the functions and their schemas, and which one, with
    which arguments, is the model's choice. From the second turn on it is free. A larger model
    can be left free from the start (``auto``).
    """
    messages: list[Any] = [{"role": "user", "content": question}]
    for turn in range(MOST_TURNS):
        answer = client.chat.completions.create(
            model=model,
            messages=messages,
            tools=TOOLS,
            tool_choice="auto" if turn else "required",
            parallel_tool_calls=False,
            temperature=0,
            max_tokens=80,
            # How results are shown to a model without a form of its own; this one repeats it.
            stop=["</tool_response>"],
        )
        message = answer.choices[0].message
        if not message.tool_calls:
            return (message.content or "").strip()
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            result = run(call.function.name, call.function.arguments)
            console.print(f"  {call.function.name}({call.function.arguments}) -> {result}")
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return f"(no answer after {MOST_TURNS} turns)"


def run(name: str, arguments: str) -> str:
    """Call a function. What goes wrong is told to the model, which may try again."""
    try:
        return FUNCTIONS[name](**json.loads(arguments))
    except (KeyError, TypeError, ValueError) as error:
        return f"error: {error}"


if __name__ == "__main__":
    main()

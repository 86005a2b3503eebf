"""Makes the gallery's rollouts of several turns: an agent with a calculator, written as a script, that errs at random.

    python experiments/gallery/multi_turn.py

Writes multi_turn.jsonl beside it: 6 problems x 8 rollouts as chat messages. What the calculator says is not the
policy's, and gets no value. No model is behind it: the page shows how turns are read and masked.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

OUT = Path(__file__).with_name("multi_turn.jsonl")
ROLLOUTS = 8
TRIPS = ("9:40 13:05", "7:15 8:50", "11:30 14:10", "6:55 10:20", "15:45 18:00", "8:05 9:30")


def rollout(start: str, end: str, rng: random.Random) -> tuple[list[dict], float]:
    """The messages after the prompt, and whether the last number is right."""
    turns: list[dict] = []

    def call(says: str, expression: str, result: int) -> int:
        turns.append({"role": "assistant", "content": f"{says} calculate({expression})"})
        turns.append({"role": "tool", "content": str(result)})
        return result

    (h, m), (hh, mm) = ([int(part) for part in time.split(":")] for time in (start, end))
    truth = 60 * (hh - h) + mm - m
    way = rng.choices(("right", "retry", "hours", "plus", "guess"), (4, 2, 2, 1, 1))[0]
    if way == "guess":
        minutes = 60 * (hh - h)
        turns.append({"role": "assistant", "content": f"From {start} to {end} is {hh - h} hours."})
    else:
        if way == "retry":
            turns.append({"role": "assistant", "content": f"First the difference. calculate({end}-{start})"})
            turns.append({"role": "tool", "content": "error: a time is not a number"})
        says = rng.choice(("The end in minutes.", "First the end, in minutes."))
        m, mm = (0, 0) if way == "hours" else (m, mm)
        late = call(says, f"{hh}*60+{mm}" if mm else f"{hh}*60", hh * 60 + mm)
        early = call("Now the start.", f"{h}*60+{m}" if m else f"{h}*60", h * 60 + m)
        sign = 1 if way == "plus" else -1
        minutes = call("The trip.", f"{late}{'+' if way == 'plus' else '-'}{early}", late + sign * early)
    turns.append({"role": "assistant", "content": f"The trip takes {minutes} minutes."})
    return turns, float(minutes == truth)


def main() -> None:
    rng = random.Random(0)
    rows = []
    for group, (start, end) in enumerate((trip.split() for trip in TRIPS), start=1):
        system = {"role": "system", "content": "You can call calculate(EXPRESSION)."}
        user = {"role": "user", "content": f"A train leaves at {start} and arrives at {end}. How many minutes is that?"}
        for _ in range(ROLLOUTS):
            completion, reward = rollout(start, end, rng)
            rows.append({"group": group, "prompt": [system, user], "completion": completion, "reward": reward})
    OUT.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()

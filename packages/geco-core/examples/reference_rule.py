"""The default rule for one constraint in plain Python, for those who port it to something else.

`docs/controller.md` has the reason for each line. It is for a constraint that is a mean over a
known number of elements, as the reconstruction error. Run with `python reference_rule.py`.
"""

from math import asinh, exp, log, sqrt


def add(value: float, change: float, w: float) -> float:
    """A step on the scale that is logarithmic above w, and linear below it, down to 0."""
    place = (log(value / w) if value > w else value / w - 1) + change
    return w * exp(place) if place > 0 else w * max(1 + place, 0.0)


class Rule:
    """Of a batch it sees the relative violation, error / kappa^2 - 1, and the mean KL."""

    def __init__(self, elements: int) -> None:
        self.elements = elements
        self.multiplier = self.integral = elements / 2
        self.n, self.last, self.noise, self.loss = 0, 0.0, 0.0, 0.0
        self.fast = self.prompt = self.slow = 0.0  # averages of the violation
        self.begun, self.resting, self.lift = 0.0, False, 0.0

    def weights(self, c: float) -> tuple[float, float]:
        """The weights of the KL and of the relative violation in the batch's loss."""
        divisor = 1 + self.multiplier * max(1 + self.fast, 1, c)
        return 1 / divisor, self.multiplier / divisor

    def step(self, c: float, kl: float) -> None:
        """One ascent, after the optimizer's step."""
        self.n, n, d = self.n + 1, self.n + 1, self.elements
        # half the mean square of differences is the noise without the motion
        if n > 1:
            surprise = (c - self.last) / (1 + abs(self.fast))
            self.noise += max(1 / (n - 1), 0.01) * (surprise**2 / 2 - self.noise)
        self.last = c
        self.loss += max(1 / n, 0.01) * (abs(kl) - self.loss)
        w = max(self.loss / 2.5, 1e-30)
        inverse = min(max(self.multiplier / w, 1), 1e3)  # of the share that still answers
        quick = min(max(0.5 / (self.noise * inverse**2 + 0.25), 0.005), 0.1)
        self.fast += max(quick, 1 / n) * (c - self.fast)
        self.prompt += max(min(2e-4 / (self.noise + 1e-4), 1), 0.002, 1 / n) * (c - self.prompt)
        self.slow += max(0.01, 1 / n) * (c - self.slow)

        clearly = max(self.slow - 2 * sqrt(0.005 * self.noise), 0)
        if n % 400 == 0:  # has learning come to rest?
            fall = (self.begun - self.slow) / (1 + abs(self.slow))
            self.resting = n > 400 and fall < 0.01 + 0.2 * sqrt(self.noise)
            self.begun = self.slow
        rests = self.resting and clearly > 0.01
        base = min(d * min(0.75 + 5 * max(self.slow, 0), 4), max(50 * self.loss, 10))
        self.lift += 1e-3 if rests else -2e-3 if self.slow < 0 else 0
        self.lift = min(max(self.lift, 0), log(max(w / (0.008 * base), 1)))
        ceiling = base * exp(self.lift)

        push = min(inverse * asinh(self.fast), 1 + 1 / (1 + inverse * clearly))
        change = 0.02 * (quick / 0.1) * max(push, -2)
        self.integral = min(add(self.integral, change, w), ceiling)
        self.multiplier = min(add(self.integral, asinh(self.prompt), w), ceiling)


def main(steps: int = 800, elements: int = 100, floor: float = 0.9) -> list[tuple[float, ...]]:
    """A model that learns slowly, and whose error answers a little: the table, one row per 100."""
    rule, rows, learning = Rule(elements), [], 20.0
    print(" step  violation  multiplier")
    for n in range(1, steps + 1):
        learning *= 0.98
        c = learning + floor + 1 / max(rule.multiplier, 1e-3) - 1
        rule.step(c, 4 * log(max(rule.multiplier, 1.1)))
        if n % 100 == 0:
            rows.append((n, c, rule.multiplier))
            print(f"{n:5d} {c:+10.4f} {rule.multiplier:11.3f}")
    return rows


if __name__ == "__main__":
    main()

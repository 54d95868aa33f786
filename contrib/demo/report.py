"""What the demo measured, and the comparison of every stored log with what went in."""
import json
import re


def quantile(values, q):
    """The q-th quantile of a sorted list; 0 for an empty one."""
    return values[min(len(values) - 1, int(q * len(values)))] if values else 0.0


def histogram_quantile(metrics, name, q, **labels):
    """(upper bound of the bucket in which the q-th quantile falls, samples), summed over matching series."""
    buckets = {}
    for series, value in metrics.items():
        base, _, rest = series.partition('{')
        have = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if base == name + '_bucket' and all(have.get(k) == v for k, v in labels.items()):
            bound = float('inf') if have['le'] == '+Inf' else float(have['le'])
            buckets[bound] = buckets.get(bound, 0) + value
    total = buckets.get(float('inf'), 0)
    for bound in sorted(buckets):
        if total and buckets[bound] >= q * total:
            return bound, int(total)
    return 0.0, int(total)


def size(count):
    """1234567 -> '1.2 MB'"""
    for unit in ('B', 'kB', 'MB', 'GB'):
        if count < 1000 or unit == 'GB':
            return f'{count:.0f} B' if unit == 'B' else f'{count:.1f} {unit}'
        count /= 1000
    return ''


def millis(seconds):
    return f'{seconds * 1000:.1f} ms' if seconds < 1 else f'{seconds:.2f} s'


def ratio(big, small):
    return f'{big / small:.1f} to 1' if small else '-'


class Verdict:
    """The stored logs against what the steps printed."""

    def __init__(self):
        self.lines_in = self.stored = 0
        self.equal = {'harness': 0, 'store': 0, 'snapshot': 0}
        self.steps = dict(self.equal)
        self.problems = []

    @property
    def lost(self):
        return self.lines_in - self.stored

    def compare(self, far, account, plans):
        for plan in plans:
            step = plan.step
            blob = far.blob(account, step.key)
            self.lines_in += len(step.written)
            self.steps[plan.route] += 1
            stored, same = self.one(plan, blob)
            self.stored += stored
            self.equal[plan.route] += same
            if not same:
                self.problems.append(f'{plan.kind} step {plan.number} ({plan.route}): {stored} of '
                                     f'{len(step.written)} lines stored; calls failed: '
                                     + (', '.join(map(str, step.errors)) or 'none'))

    @staticmethod
    def one(plan, blob):
        """(lines of the step that are stored, whether the log is exactly what went in)"""
        if blob is None:
            return 0, False
        written = plan.step.written
        try:
            found = [json.loads(row)['out'] for row in blob.split(b'\n') if row]
        except (ValueError, KeyError, TypeError):
            return 0, False
        if plan.route == 'snapshot':
            same = found == written
        else:
            same = blob == plan.step.blob and found == written
        if same:
            return len(written), True
        stored = at = 0
        for line in written:            # in order and once each
            if line in found[at:]:
                at, stored = found.index(line, at) + 1, stored + 1
        return stored, False


def table(rows):
    """Rows of (label, text) with the labels in one column."""
    width = max(len(label) for label, _ in rows)
    return '\n'.join(f'  {label:<{width}}  {text}' for label, text in rows)

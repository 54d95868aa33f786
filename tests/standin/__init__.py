"""Stand-ins for the far side (the Harness SaaS) and for the near side (its four log clients).

Everything here is written from the protocol document alone and shares no code with the product,
so that a mistake in one is not repeated in the other.
"""

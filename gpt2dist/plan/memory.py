def largest_micro_batch(*a, **k):
    return 1

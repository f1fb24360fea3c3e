"""The fake DataSync API: data set, rate limits, a handful of faults. Imports nothing of ours."""

"""The fake DataSync API: data set, rate limits, faults. Stands alone: imports nothing of ours."""

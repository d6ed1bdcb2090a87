"""One adapter for each kind of result: what it holds, as a report. They read results and compute nothing."""

"""Raw logs as named time series: what is read before anybody says what is observed and what is commanded."""

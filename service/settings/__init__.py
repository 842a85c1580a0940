"""Every environment variable of every job, one class a job. Import the class from its own module."""

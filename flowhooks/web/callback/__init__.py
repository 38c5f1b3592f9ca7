"""The callback listener: `POST /flow/{flowInstanceId}/call-back/complete`."""

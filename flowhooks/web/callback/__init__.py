"""The callback listener: `POST /flow/{flowInstanceId}/call-back/complete` and `POST /in/{source}`."""

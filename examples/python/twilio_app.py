import os

from twilio.rest import Client

client = Client(os.environ["TWILIO_ACCOUNT_SID"], os.environ["TWILIO_AUTH_TOKEN"])

message = client.messages.create(to="+15550001", from_="+15550002", body="Hello from Python")
print("sent", message.sid, message.status)

for service in client.verify.v2.services.list(page_size=1, limit=2):
    print("verify service", service.friendly_name)

"""A Django REST framework API of events: /offset/ and /cursor/, by its own paginators.

`python django_events.py EVENTS.json PORT`. Runs in an environment of its own (foreign.py).
"""

import json
import secrets
import sys
import tempfile
from pathlib import Path

import django
import uvicorn
from django.conf import settings

KEY = "d3b07384d113edec"
FOLDER = tempfile.TemporaryDirectory()
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{FOLDER.name}/db"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework",
                    "rest_framework.authtoken"],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    },
    ROOT_URLCONF=__name__,
    SECRET_KEY=secrets.token_hex(),
    TIME_ZONE="UTC",
    USE_TZ=True,
)  # fmt: skip
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, models  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework import generics, pagination, serializers  # noqa: E402
from rest_framework.authtoken.models import Token  # noqa: E402


class Event(models.Model):
    """A row of the API."""

    created_at = models.DateTimeField()
    type = models.CharField(max_length=20)
    user = models.IntegerField()
    properties = models.JSONField()

    class Meta:
        app_label = "events"
        ordering = ("-created_at", "-id")


class EventSerializer(serializers.ModelSerializer):
    class Meta:
        model = Event
        fields = "__all__"


class ByOffset(pagination.LimitOffsetPagination):
    max_limit = 100


class ByCursor(pagination.CursorPagination):
    page_size_query_param = "page_size"
    max_page_size = 100
    ordering = "-created_at"


def view(by: type) -> object:
    """The list of events by one of the paginators."""
    return generics.ListAPIView.as_view(
        queryset=Event.objects.all(), serializer_class=EventSerializer, pagination_class=by
    )


urlpatterns = [
    path("offset/", view(ByOffset)),
    path("cursor/", view(ByCursor)),
]


def main(file: str, port: int) -> None:
    """Fills a new database and serves it."""
    call_command("migrate", verbosity=0)
    with connection.schema_editor() as editor:
        editor.create_model(Event)
    Event.objects.bulk_create(Event(**one) for one in json.loads(Path(file).read_text()))
    Token.objects.create(user=User.objects.create_user("crawler"), key=KEY)
    uvicorn.run(get_asgi_application(), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

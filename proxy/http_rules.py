"""Which HTTP request is which method: the google.api.http rules of the user function's services.

At discovery `bindings` reads the rules from the method options, checks them against the types (spec http 8) and adds
`POST /<service>/<method>` for each method without one. A `Table` of the bindings then finds the one for a request: the
binding declared last is tried first, as the reference does. How a request becomes a message is transcode.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError

from stateside.proto import api, extension, protobuf
from stateside.proxy import templates
from stateside.proxy.descriptors import Descriptors, SpecError
from stateside.proxy.json_plan import Plan, Plans
from stateside.proxy.templates import Template, TemplateError

RULE_OPTION = 72295728
ANY_VERB = "*"
WHOLE = "*"  # the body is the whole message
HTTP_BODY = "google.api.HttpBody"

FieldPath = tuple[FieldDescriptor, ...]

WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
# Messages whose JSON is a string, so that they may stand in a path or a query.
TEXTUAL = frozenset(f"google.protobuf.{name}" for name in ("Timestamp", "Duration", "FieldMask"))


@dataclass(frozen=True, slots=True)
class Binding:
    """One rule of one method. `order` is its place among all: of those that match, the highest wins."""

    order: int
    service: str
    method: str
    verb: str
    template: Template
    variables: tuple[FieldPath, ...]
    body: FieldDescriptor | str | None  # a field, WHOLE or none
    response: FieldDescriptor | None  # the field that is the answer; None = the whole reply
    input: Plan
    output: Plan
    client_streaming: bool
    server_streaming: bool
    answers_bytes: bool  # the whole reply is google.api.HttpBody
    texts: tuple[tuple[bytes, int], ...] | None  # of a request that is nothing but texts of the path: tags and captures

    @property
    def streamed(self) -> bool:
        return self.client_streaming or self.server_streaming

    @property
    def name(self) -> str:
        return f"{self.service}.{self.method}"

    @property
    def path(self) -> str:
        """Of the method, as gRPC has it."""
        return f"/{self.service}/{self.method}"

    def serves(self, verb: str) -> bool:
        return self.verb == verb or self.verb == ANY_VERB


class Table:
    """Finds the binding of a request."""

    def __init__(self, bindings: Sequence[Binding] = ()) -> None:
        self._exact: dict[str, list[Binding]] = {}
        self._patterns: list[Binding] = []
        for binding in sorted(bindings, key=lambda binding: -binding.order):
            literal = binding.template.literal
            (self._patterns if literal is None else self._exact.setdefault(literal, [])).append(binding)
        self._by_verb = {verb: self._serving(verb) for verb in {binding.verb for binding in bindings}}
        self._of_any_verb = self._serving(ANY_VERB)

    def find(self, verb: str, path: str) -> tuple[Binding, tuple[str, ...]] | None:
        """The binding for a canonical path, and what its variables captured."""
        listed = self._exact.get(path)
        exact = next((binding for binding in listed if binding.serves(verb)), None) if listed else None
        for binding in self._by_verb.get(verb, self._of_any_verb):
            if exact is not None and binding.order < exact.order:
                break
            captures = binding.template.match(path)
            if captures is not None:
                return binding, captures
        return (exact, ()) if exact is not None else None

    def _serving(self, verb: str) -> list[Binding]:
        return [binding for binding in self._patterns if binding.serves(verb)]

    def verbs(self, path: str) -> list[str]:
        """All that the path may be asked with; empty when nothing fits it."""
        verbs = {binding.verb for binding in self._exact.get(path, ())}
        verbs |= {binding.verb for binding in self._patterns if binding.template.match(path) is not None}
        return sorted(verbs | {"HEAD"} if "GET" in verbs else verbs)


def _texts(variables: tuple[FieldPath, ...]) -> tuple[tuple[bytes, int], ...] | None:
    """See `Binding.texts`. Fields with presence are written even if they are empty, so they are none of these."""
    fields = [path[-1] for path in variables]
    ordinary = all(field.type == field.TYPE_STRING and not field.is_repeated for field in fields)
    if not ordinary or any(field.has_presence for field in fields) or any(len(path) > 1 for path in variables):
        return None
    numbered = sorted((field.number, place) for place, field in enumerate(fields))
    return tuple((_tag(number), place) for number, place in numbered)


def _tag(number: int) -> bytes:
    """Of a field that has a length."""
    value, tag = number << 3 | 2, b""
    while value > 127:
        tag += bytes((value & 127 | 128,))
        value >>= 7
    return tag + bytes((value,))


def bindings(built: Descriptors, service_names: Iterable[str]) -> tuple[Binding, ...]:
    """The bindings of all methods of these services. Raises SpecError naming the first rule that is wrong."""
    found: list[Binding] = []
    plans = Plans()
    for service_name in service_names:
        for method in built.pool.FindServiceByName(service_name).methods:
            for rule in _rules(method):
                found.append(_Checker(method, plans).binding(rule, len(found)))
    return tuple(found)


def _rules(method: MethodDescriptor) -> Iterator[Any]:
    """The rule of a method and its additional bindings, or the default rule."""
    rule = _annotation(method)
    if rule is None:
        yield api.HttpRule(post=f"/{method.containing_service.full_name}/{method.name}", body=WHOLE)
        return
    yield rule
    for additional in rule.additional_bindings:
        if additional.additional_bindings:
            shown = " ".join(str(additional).split())
            raise _error(f"Only one level of additionalBindings supported, but [{shown}] has more than one!", method)
        yield additional


def _annotation(method: MethodDescriptor) -> Any:
    """Read by our own knowledge of the option, whatever the runtime knows."""
    option = extension("google.api.http")
    assert option.number == RULE_OPTION
    try:
        options = protobuf.MethodOptions.FromString(method.GetOptions().SerializeToString())
    except DecodeError as error:
        raise _error(f"The option google.api.http cannot be read: {error}", method) from error
    return options.Extensions[option] if options.HasExtension(option) else None


def _error(text: str, method: MethodDescriptor) -> SpecError:
    """The reference proxy's words, and where the rule stands."""
    return SpecError(f"HTTP API Config: {text} (method {_full_name(method)})")


def _full_name(method: MethodDescriptor) -> str:
    return f"{method.containing_service.full_name}.{method.name}"


class _Checker:
    """Checks one rule of a method, in the order of spec http 8."""

    def __init__(self, method: MethodDescriptor, plans: Plans) -> None:
        self.method = method
        self.plans = plans
        self.input: Descriptor = method.input_type
        self.output: Descriptor = method.output_type

    def binding(self, rule: Any, order: int) -> Binding:
        verb, path = self.pattern(rule)
        template = self.template(path)
        variables = tuple(self.variable(name) for name in template.fields)
        body = self.body(rule.body)
        response = self.response(rule.response_body)
        return Binding(
            order=order,
            service=self.method.containing_service.full_name,
            method=self.method.name,
            verb=verb,
            template=template,
            variables=variables,
            body=body,
            response=response,
            input=self.plans.of(self.input),
            output=self.plans.of(self.output),
            client_streaming=bool(self.method.client_streaming),
            server_streaming=bool(self.method.server_streaming),
            answers_bytes=response is None and self.output.full_name == HTTP_BODY,
            texts=_texts(variables) if body is None else None,
        )

    def error(self, text: str) -> SpecError:
        return _error(text, self.method)

    def pattern(self, rule: Any) -> tuple[str, str]:
        """(verb, template)."""
        full_name = _full_name(self.method)
        if rule.selector and rule.selector != full_name:
            raise self.error(f"Rule selector [{rule.selector}] must be empty or [{full_name}]")
        kind = rule.WhichOneof("pattern")
        if kind is None:
            raise self.error(f"Pattern missing for rule [{' '.join(str(rule).split())}]!")
        if kind != "custom":
            return kind.upper(), getattr(rule, kind)
        if rule.custom.kind != ANY_VERB:
            raise self.error(f"Only Custom patterns with [*] kind supported but [{rule.custom.kind}] found!")
        return ANY_VERB, rule.custom.path

    def template(self, path: str) -> Template:
        try:
            return templates.parse(path)
        except TemplateError as error:
            raise SpecError(f"{error} (method {_full_name(self.method)})") from error

    def variable(self, name: str) -> FieldPath:
        """The fields on the way to a variable's; the last is one that text can be written into."""
        fields: list[FieldDescriptor] = []
        message: Descriptor | None = self.input
        for part in name.split("."):
            field = message.fields_by_name.get(part) if message is not None else None
            if field is None:
                where = f"reference in path template for method [{_full_name(self.method)}]"
                raise self.error(f"Unknown field name [{name}] in type [{self.input.full_name}] {where}")
            if field.is_repeated:
                raise self.error(f"Repeated parameters [{field.full_name}] are not allowed as path variables")
            fields.append(field)
            message = field.message_type
        if message is not None and message.full_name not in WRAPPERS | TEXTUAL:
            raise self.error("Message path parameters not supported!")
        return tuple(fields)

    def body(self, name: str) -> FieldDescriptor | str | None:
        if not name or name == WHOLE:
            return name or None
        field = self.input.fields_by_name.get(name)
        if field is None:
            raise self.error(f"Body configured to [{name}] but that field does not exist on input type.")
        if field.is_repeated:
            raise self.error(f"Body configured to [{name}] but that field is a repeated field.")
        return field

    def response(self, name: str) -> FieldDescriptor | None:
        field = self.output.fields_by_name.get(name) if name else None
        if name and field is None:
            raise self.error(f"Response body field [{name}] does not exist on type [{self.output.full_name}]")
        return field

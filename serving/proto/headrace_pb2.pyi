from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecommendRequest(_message.Message):
    __slots__ = ("user", "session", "items", "count", "exclude", "exclude_purchased", "exclude_out_of_stock", "repeat", "lang", "filters", "diversity", "diversity_method", "placement", "strategy", "country", "explore", "seed", "explain", "cursor", "deadline_ms", "experiments", "fields")
    class ExperimentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    USER_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_PURCHASED_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_OUT_OF_STOCK_FIELD_NUMBER: _ClassVar[int]
    REPEAT_FIELD_NUMBER: _ClassVar[int]
    LANG_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_METHOD_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    EXPLORE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENTS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    user: str
    session: str
    items: _containers.RepeatedScalarFieldContainer[str]
    count: int
    exclude: _containers.RepeatedScalarFieldContainer[str]
    exclude_purchased: bool
    exclude_out_of_stock: bool
    repeat: str
    lang: str
    filters: Filters
    diversity: float
    diversity_method: str
    placement: str
    strategy: str
    country: str
    explore: int
    seed: int
    explain: bool
    cursor: str
    deadline_ms: float
    experiments: _containers.ScalarMap[str, str]
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, user: _Optional[str] = ..., session: _Optional[str] = ..., items: _Optional[_Iterable[str]] = ..., count: _Optional[int] = ..., exclude: _Optional[_Iterable[str]] = ..., exclude_purchased: _Optional[bool] = ..., exclude_out_of_stock: _Optional[bool] = ..., repeat: _Optional[str] = ..., lang: _Optional[str] = ..., filters: _Optional[_Union[Filters, _Mapping]] = ..., diversity: _Optional[float] = ..., diversity_method: _Optional[str] = ..., placement: _Optional[str] = ..., strategy: _Optional[str] = ..., country: _Optional[str] = ..., explore: _Optional[int] = ..., seed: _Optional[int] = ..., explain: _Optional[bool] = ..., cursor: _Optional[str] = ..., deadline_ms: _Optional[float] = ..., experiments: _Optional[_Mapping[str, str]] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

class BatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RecommendRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RecommendRequest, _Mapping]]] = ...) -> None: ...

class BatchAnswer(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[Answer]
    def __init__(self, answers: _Optional[_Iterable[_Union[Answer, _Mapping]]] = ...) -> None: ...

class Filters(_message.Message):
    __slots__ = ("category", "brands", "min_price", "max_price", "country", "where")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    BRANDS_FIELD_NUMBER: _ClassVar[int]
    MIN_PRICE_FIELD_NUMBER: _ClassVar[int]
    MAX_PRICE_FIELD_NUMBER: _ClassVar[int]
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    category: str
    brands: _containers.RepeatedScalarFieldContainer[str]
    min_price: float
    max_price: float
    country: str
    where: str
    def __init__(self, category: _Optional[str] = ..., brands: _Optional[_Iterable[str]] = ..., min_price: _Optional[float] = ..., max_price: _Optional[float] = ..., country: _Optional[str] = ..., where: _Optional[str] = ...) -> None: ...

class SimilarItemsRequest(_message.Message):
    __slots__ = ("item", "count", "lang", "fields")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LANG_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    item: str
    count: int
    lang: str
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item: _Optional[str] = ..., count: _Optional[int] = ..., lang: _Optional[str] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

class PopularRequest(_message.Message):
    __slots__ = ("scope", "name", "count", "lang", "fields")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LANG_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    scope: str
    name: str
    count: int
    lang: str
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, scope: _Optional[str] = ..., name: _Optional[str] = ..., count: _Optional[int] = ..., lang: _Optional[str] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("code", "args", "text")
    class ArgsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    code: str
    args: _containers.ScalarMap[str, str]
    text: str
    def __init__(self, code: _Optional[str] = ..., args: _Optional[_Mapping[str, str]] = ..., text: _Optional[str] = ...) -> None: ...

class Recommendation(_message.Message):
    __slots__ = ("item", "title", "score", "source", "reason", "rules", "contributions", "fields")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    item: str
    title: str
    score: float
    source: str
    reason: Reason
    rules: _containers.RepeatedScalarFieldContainer[str]
    contributions: _containers.RepeatedCompositeFieldContainer[Contribution]
    fields: _struct_pb2.Struct
    def __init__(self, item: _Optional[str] = ..., title: _Optional[str] = ..., score: _Optional[float] = ..., source: _Optional[str] = ..., reason: _Optional[_Union[Reason, _Mapping]] = ..., rules: _Optional[_Iterable[str]] = ..., contributions: _Optional[_Iterable[_Union[Contribution, _Mapping]]] = ..., fields: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("kind", "item", "title", "share")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    item: str
    title: str
    share: float
    def __init__(self, kind: _Optional[str] = ..., item: _Optional[str] = ..., title: _Optional[str] = ..., share: _Optional[float] = ...) -> None: ...

class RuleTrace(_message.Message):
    __slots__ = ("rule", "action", "effect", "items")
    RULE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    rule: str
    action: str
    effect: str
    items: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, rule: _Optional[str] = ..., action: _Optional[str] = ..., effect: _Optional[str] = ..., items: _Optional[_Iterable[str]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("items", "request_id", "generation", "anchor", "fallback", "milliseconds", "placement", "strategy", "rules_version", "attribution", "next_cursor", "skipped_sources", "rules", "experiments")
    class ExperimentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    RULES_VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_SOURCES_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENTS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Recommendation]
    request_id: str
    generation: str
    anchor: str
    fallback: str
    milliseconds: float
    placement: str
    strategy: str
    rules_version: int
    attribution: str
    next_cursor: str
    skipped_sources: _containers.RepeatedScalarFieldContainer[str]
    rules: _containers.RepeatedCompositeFieldContainer[RuleTrace]
    experiments: _containers.ScalarMap[str, str]
    def __init__(self, items: _Optional[_Iterable[_Union[Recommendation, _Mapping]]] = ..., request_id: _Optional[str] = ..., generation: _Optional[str] = ..., anchor: _Optional[str] = ..., fallback: _Optional[str] = ..., milliseconds: _Optional[float] = ..., placement: _Optional[str] = ..., strategy: _Optional[str] = ..., rules_version: _Optional[int] = ..., attribution: _Optional[str] = ..., next_cursor: _Optional[str] = ..., skipped_sources: _Optional[_Iterable[str]] = ..., rules: _Optional[_Iterable[_Union[RuleTrace, _Mapping]]] = ..., experiments: _Optional[_Mapping[str, str]] = ...) -> None: ...

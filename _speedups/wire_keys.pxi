# Part of wire.pyx: entity keys, scanned out of the request of a client before anything else is known about it.

cdef enum KeyType:
    STRING
    BOOL
    INT32
    INT64
    SINT32
    SINT64
    FLOAT
    DOUBLE
    ENUM

# protobuf type -> wire type and text form; unsigned types show the signed number of the same bits, as Java does
cdef dict KEY_TYPES = {
    "string": (LEN, STRING),
    "bool": (VARINT, BOOL),
    "int32": (VARINT, INT32),
    "uint32": (VARINT, INT32),
    "int64": (VARINT, INT64),
    "uint64": (VARINT, INT64),
    "sint32": (VARINT, SINT32),
    "sint64": (VARINT, SINT64),
    "fixed32": (I32, INT32),
    "sfixed32": (I32, INT32),
    "fixed64": (I64, INT64),
    "sfixed64": (I64, INT64),
    "float": (I32, FLOAT),
    "double": (I64, DOUBLE),
    "enum": (VARINT, ENUM),
}

ENUM_NAME = 1 << 32


@cython.final
cdef class KeyScanner:
    def __init__(self, fields, enums=None):
        fields = list(fields)
        if not 1 <= len(fields) <= MAX_KEYS:
            raise ValueError(f"an entity key has 1 to {MAX_KEYS} fields, not {len(fields)}")
        if len({number for number, _ in fields}) < len(fields):
            raise ValueError(f"a field is twice in the entity key: {fields}")
        self.count = 0
        self.enums = []
        for number, type_name in fields:
            self.add(number, type_name, (enums or {}).get(number))

    cdef int add(self, number, type_name, enum) except -1:
        if not 1 <= number <= MAX_FIELD_NUMBER:
            raise ValueError(f"{number} is not a field number")
        if type_name not in KEY_TYPES:
            allowed = ", ".join(KEY_TYPES)
            raise ValueError(f"field {number}: type {type_name!r} cannot be an entity key; it may be {allowed}")
        wire_type, type_ = KEY_TYPES[type_name]
        if type_ == ENUM and enum is None:
            raise ValueError(f"field {number}: the names of the enum's values are missing")
        self.keys[self.count].tag = number << 3 | wire_type
        self.keys[self.count].type = type_
        self.enums.append(dict(enum) if type_ == ENUM else None)
        self.count += 1
        return 0

    cpdef str scan(self, bytes message):
        cdef KeyValue[MAX_KEYS] values
        cdef Reader reader
        cdef Field field
        cdef int i
        cdef const uint8_t* p = begin(&reader, message)
        cdef const uint8_t* end = p + len(message)
        reader.groups = True
        for i in range(self.count):
            values[i].number = 0
            values[i].data = p
            values[i].size = 0
        while p < end:
            p = next_field(&reader, p, end, &field, b"command message")
            for i in range(self.count):
                if self.keys[i].tag == field.tag:
                    if self.keys[i].type == STRING:
                        check_utf8(&reader, &field, b"entity key")
                        values[i].data = field.data
                        values[i].size = field.size
                    else:
                        values[i].number = field.value
        if self.count == 1:
            return self.text(0, &values[0])
        return "-".join([self.text(i, &values[i]) for i in range(self.count)])

    cdef str text(self, int index, KeyValue* value):
        cdef int type_ = self.keys[index].type
        if type_ == STRING:
            return PyUnicode_DecodeUTF8(<const char*>value.data, value.size, NULL)
        if type_ == INT64:
            return str(<int64_t>value.number)
        if type_ == INT32:
            return str(<int32_t>value.number)
        if type_ == SINT64:
            return str(zigzag(value.number))
        if type_ == SINT32:
            return str(zigzag32(value.number))
        if type_ == BOOL:
            return "true" if value.number else "false"
        if type_ == DOUBLE:
            return double_text(double_of_bits(value.number))
        if type_ == FLOAT:
            return float_text(float_of_bits(<uint32_t>value.number))
        return self.enum_text(index, <int32_t>value.number)

    cdef str enum_text(self, int index, int32_t number):
        cdef dict names = self.enums[index]
        name = names.get(number)
        if name is not None:
            return name
        return f"UNKNOWN_ENUM_VALUE_{names.get(ENUM_NAME, 'Enum')}_{number}"


cdef inline double double_of_bits(uint64_t bits) noexcept nogil:
    cdef double value
    memcpy(&value, &bits, 8)
    return value


cdef inline float float_of_bits(uint32_t bits) noexcept nogil:
    cdef float value
    memcpy(&value, &bits, 4)
    return value


def check(bytes message not None):
    """Walk the top level of a message; WireError if malformed."""
    cdef Reader reader
    cdef Field field
    cdef const uint8_t* p = begin(&reader, message)
    cdef const uint8_t* end = p + len(message)
    reader.groups = True
    while p < end:
        p = next_field(&reader, p, end, &field, b"message")

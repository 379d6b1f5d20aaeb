%% Stands in for the library of that name, which the tests cannot fetch: the same functions, called in the same way. Handlers run
%% in the process that emits, and one that raises is detached.
-module(telemetry).

-export([start/0, attach_many/4, detach/1, execute/3, list_handlers/1]).

%% Its table's owner, as the library's application would start it.
start() ->
    Starter = self(),
    Owner = spawn(fun() ->
        register(telemetry_handler_table, self()),
        ets:new(telemetry_handler_table, [duplicate_bag, named_table, public, {read_concurrency, true}]),
        Starter ! {self(), started},
        receive stop -> ok end
    end),
    receive {Owner, started} -> Owner end.

attach_many(Id, Events, Function, Config) ->
    case ets:match(telemetry_handler_table, {'_', Id, '_', '_'}) of
        [] -> ets:insert(telemetry_handler_table, [{Event, Id, Function, Config} || Event <- Events]), ok;
        _ -> {error, already_exists}
    end.

detach(Id) ->
    case ets:match(telemetry_handler_table, {'_', Id, '_', '_'}) of
        [] -> {error, not_found};
        _ -> ets:match_delete(telemetry_handler_table, {'_', Id, '_', '_'}), ok
    end.

execute(Event, Measurements, Metadata) ->
    Run = fun({_, Id, Function, Config}) ->
        try Function(Event, Measurements, Metadata, Config) catch _:_ -> detach(Id) end
    end,
    lists:foreach(Run, ets:lookup(telemetry_handler_table, Event)).

list_handlers(Prefix) ->
    All = ets:tab2list(telemetry_handler_table),
    [#{id => Id, event_name => Event, function => Function, config => Config}
     || {Event, Id, Function, Config} <- All, lists:prefix(Prefix, Event)].
